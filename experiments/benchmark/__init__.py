"""The benchmark: the library beside a hand-written reference and its peers, in one run."""
