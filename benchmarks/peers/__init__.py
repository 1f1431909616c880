"""The worker beside others as the users of stream libraries would write them, on the same candles, prompts, engine and clock.

Each peer is one short file in `benchmarks/peers/clients/`, with an environment of its own. Each run has a broker and a simulator of one
H100 of its own, 200 symbols with prompts of 4K tokens, and as many calls at once for everybody. The load at 1x is two thirds of what the
engine answers when nothing is cached. `cold` begins with an empty cache. An age goes from the append time of a bar's record to that of its
signal; a signal is on time within 3 s, as long as one on a bar of 1m may be acted on unless told otherwise. Peers know no deadline: what
they ask in vain they publish late. `records/s` is a burst of forming bars with one closed bar after it, until that one is answered.
`kill -9` ends every process of the worker in the middle of a round and starts it again. Every symbol starts at the beginning of an epoch,
and no epoch ends within a run: what is sent ahead costs here, and does not pay.
"""
