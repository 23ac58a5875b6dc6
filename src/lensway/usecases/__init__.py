"""What can be done to a deployment, without HTTP: a caller and typed values in, typed values out."""
