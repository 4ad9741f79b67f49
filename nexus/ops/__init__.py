"""The maths: pure functions, one paper link each."""
