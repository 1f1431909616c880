"""The worker beside others as the users of stream libraries would write them, on the same candles, prompts, engine and clock.

Each peer is one short file in `benchmarks/peers/clients/`, with an environment of its own. Each run has a broker and a simulator of one
H100 of its own, 200 symbols with prompts of 4K tokens, and as many calls at once for everybody. The load at 1x is two thirds of what the
engine answers when nothing is cached. `cold` begins right after a worker's start, when it has answered a bar on each partition, on an
engine whose cache was empty at that start: what it has sent ahead by then is its own doing. An age goes from the append time of a bar's
record to that of its signal; a signal is on time within 3 s, as long as one on a bar of 1m may be acted on unless told otherwise. Peers
know no deadline: what they ask in vain they publish late. `cached` is the share of prompt tokens that the engine had. For `backlog` the
worker stands still (SIGSTOP) while forming bars are appended and a closed bar on each partition; `records/s` are the forming bars over the
time that the answers take longer than without them, the shortest of three times without and of two with. `bare aiokafka` reads and parses
each record and asks nothing. `kill -9` ends every process of the worker in the middle of a round and starts it again. Every symbol starts
at the beginning of an epoch, and no epoch ends within a run: what is sent ahead of the next epoch costs here, and does not pay; what is
sent of the current one to a cold engine does.

Each target is beside the best peer of its phase and column: an age of no more than the best peer's, and at 10x with a warm cache of at
most 0.8 of it. At 1x nothing queues, and a worker whose window grows has the same prefix in the cache: the age of both is the time of the
engine's answer, and no wide lead can be had of it. The 0.8 that was first aimed at there as well is aimed at no longer. Quix Streams runs
as eight processes on both cores, the others as one.
"""
