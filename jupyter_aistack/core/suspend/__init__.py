"""The rules of suspension: who may leave a device, who must, and who comes back."""
