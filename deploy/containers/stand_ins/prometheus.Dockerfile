# Stands in for the official Prometheus image: Debian's Prometheus, its data folder owned by nobody, and wget.
FROM aquiline/stand-in-debian
RUN apt-get update \
    && apt-get install -y --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* /etc/prometheus/* \
    && install -d -o 65534 -g 65534 -m 0755 /prometheus
USER 65534:65534
VOLUME /prometheus
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
