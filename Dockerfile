# The Python the requirements are pinned for and the tests run on.
FROM python:3.11-slim-bookworm AS builder

WORKDIR /src

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

COPY requirements-build.txt requirements.txt ./

# The image gets an environment without pip; its bytecode is compiled here, since nothing can be written later.
RUN python -m venv /build \
    && python -m venv --without-pip /opt/websocket-exporter \
    && /build/bin/pip install --require-hashes --only-binary=:all: -r requirements-build.txt \
    && /build/bin/pip --python /opt/websocket-exporter/bin/python install --require-hashes --only-binary=:all: \
        --compile -r requirements.txt

COPY . .

RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /build/bin/pip --python /opt/websocket-exporter/bin/python install --no-deps --no-index --compile /dist/*.whl


FROM python:3.11-slim-bookworm

ARG VERSION=unknown
LABEL org.opencontainers.image.title="websocket-exporter" \
      org.opencontainers.image.description="A sidecar that knows why WebSocket connections die" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

COPY --from=builder /opt/websocket-exporter /opt/websocket-exporter

# Runs with a read-only root and any user id: nothing is written unless a storage path is configured, which then has to
# be a volume that the user id may write.
ENV PATH=/opt/websocket-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 65532:65532

EXPOSE 11009

# SIGTERM starts the drain: give the container longer than --shutdown.grace (25 s) before it is killed.
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["websocket-exporter", "health"]

ENTRYPOINT ["websocket-exporter"]
