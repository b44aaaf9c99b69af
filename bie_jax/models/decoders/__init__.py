"""From latents to images and distance matrices."""
