"""SANet: shallow attention on Res2Net-50."""
