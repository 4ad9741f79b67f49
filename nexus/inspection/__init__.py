"""What a run holds, in words and as tables: its Q-values, its exploration, its loss and its replay."""
