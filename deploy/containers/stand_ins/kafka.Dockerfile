# Stands in for the official Kafka image: Kafka's jars of deploy/local on Debian's Java, with the official image's user, folders, volumes
# and start, which turns variables into properties.
FROM aquiline/stand-in-debian
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash appuser \
    && install -d -o appuser -g appuser /opt/kafka /opt/kafka/config /opt/kafka/logs /opt/kafka/bin /mnt/shared/config \
    && install -d -o appuser -g root -m 0775 /var/lib/kafka /var/lib/kafka/data /etc/kafka /etc/kafka/secrets /etc/kafka/docker
COPY libs /opt/kafka/libs
COPY kafka-run /etc/kafka/docker/run
USER appuser
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
CMD ["/etc/kafka/docker/run"]
