"""From images to feature maps."""
