"""Records of each format of the state on disk, as the first program that wrote it left them."""
