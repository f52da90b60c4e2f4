"""`make gameday`: an exercise for people on a live stack. It breaks something, says nothing, and scores what was seen
and done."""
