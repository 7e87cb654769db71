# No class has C types: the module is compiled because it runs for each publication.
from endwell.rooms._records cimport fill
