"""A real Kafka and a real Redis on loopback, for tests, benchmarks and trials.

`python -m deploy.local up | status | down` runs them in the background; tests use `LocalKafka` and `LocalRedis`.
"""

from deploy.local.kafka import LocalKafka
from deploy.local.process import LocalError, MissingError
from deploy.local.redis import LocalRedis
from deploy.local.security import LocalSecurity

__all__ = ["LocalError", "LocalKafka", "LocalRedis", "LocalSecurity", "MissingError"]
