"""The web control room and its API come with a later release; the command line serves until then."""
