"""What a server counts, and the page that shows it to Prometheus."""
