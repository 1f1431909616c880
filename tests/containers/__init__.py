"""The Compose file on a real Docker Engine. `make test-containers` stores this itself: how long it took with everything in
`.cache/containers` (`cached`) or with some of that still to be made (`first`), and which images were stand-ins made of Debian's packages.
"""
