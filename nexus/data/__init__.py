"""Experience: folding steps, storing and sampling them."""
