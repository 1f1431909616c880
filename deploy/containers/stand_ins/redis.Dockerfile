# Stands in for the official Redis image: Debian's Redis with the same volume and work folder.
FROM aquiline/stand-in-debian
RUN apt-get update \
    && apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o redis -g redis -m 0755 /data
VOLUME /data
WORKDIR /data
CMD ["redis-server"]
