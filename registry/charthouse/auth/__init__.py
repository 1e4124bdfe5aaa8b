"""Who asks, and what he may: users, groups, grants, and how each shows who he is."""
