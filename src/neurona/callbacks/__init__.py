"""What watches or steers a fit, a file each."""
