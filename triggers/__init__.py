"""From a fact to a decision to a poke: the relay matches, dispatch pokes, the sweep finds what was missed."""
