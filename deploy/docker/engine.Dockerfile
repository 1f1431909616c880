# The engine: the official SGLang image, with the launcher in an environment of its own, and the plug-in that lets stock SGLang serve
# MiniCPM with EAGLE3 in SGLang's environment. No package of the image changes.
#
#   docker build -f deploy/docker/engine.Dockerfile -t aquiline/engine:0.1.0-sglang0.5.17 .
ARG SGLANG_IMAGE=lmsysorg/sglang:v0.5.17-cu130

FROM ${SGLANG_IMAGE} AS wheel
WORKDIR /src
COPY deploy/locks/build.txt deploy/locks/build.txt
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r deploy/locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY deploy/engine deploy/engine
COPY schemas schemas
COPY services services
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${SGLANG_IMAGE}
LABEL org.opencontainers.image.title="Aquiline engine" \
      org.opencontainers.image.description="SGLang 0.5.17 with EAGLE3 for MiniCPM4.1" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY deploy/locks/services.txt /locks/services.txt
COPY --from=wheel /wheels /wheels
RUN python3 -m venv /opt/aquiline \
    && /opt/aquiline/bin/pip install --no-cache-dir --no-deps --require-hashes -r /locks/services.txt \
    && /opt/aquiline/bin/pip install --no-cache-dir --no-deps --no-index /wheels/aquiline-*.whl \
    && /opt/aquiline/bin/pip check \
    && python3 -m pip install --no-cache-dir --no-deps --no-index --break-system-packages /wheels/aquiline-*.whl \
    && printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v python3)" > /usr/local/bin/sglang-python \
    && chmod 0755 /usr/local/bin/sglang-python \
    && groupadd --gid 10001 aquiline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/engine --shell /usr/sbin/nologin aquiline \
    && install -d -o 10001 -g 10001 -m 0700 /var/cache/engine /run/aquiline/secrets
# The first start compiles kernels into this folder, which is a volume.
ENV HOME=/var/cache/engine \
    PATH=/opt/aquiline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/cache/engine
USER 10001:10001
# Health checks are declared in docker-compose.yml and k8s/.
HEALTHCHECK NONE
CMD ["aquiline", "engine", "serve", "--help"]
