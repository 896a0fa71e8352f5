"""What guards weights, configs and archives."""
