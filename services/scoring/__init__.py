"""The Faust application that judges signals by what the market did next."""
