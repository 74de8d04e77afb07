"""SegFormer: a pyramid vision transformer and a decoder of linear layers."""
