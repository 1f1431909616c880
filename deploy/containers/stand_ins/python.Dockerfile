# Stands in for the official Python image: Debian's Python under the command `python`, and pip as this machine configures it.
FROM aquiline/stand-in-debian
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \
    && ln -s python3 /usr/bin/python
COPY pip.conf /etc/pip.conf
CMD ["python3"]
