"""What tests say in a framework's own terms: one module per backend, found by the backend's name."""
