"""From planes of raw images to examples: fields, crops, outlines."""
