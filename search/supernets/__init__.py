"""Networks that hold many networks: supernets, their gates, and published weights."""
