"""From images and distance matrices to feature maps."""
