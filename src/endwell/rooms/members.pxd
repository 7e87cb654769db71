# Nothing has C types: the module is compiled because it runs for each publication.
