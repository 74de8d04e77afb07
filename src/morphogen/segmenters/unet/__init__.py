"""The U-Net family of segmenters."""
