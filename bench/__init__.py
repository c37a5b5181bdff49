"""Times and ratios, never part of the tests: each module measures one thing and answers rows."""
