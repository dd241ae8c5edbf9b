# syntax=docker/dockerfile:1.7
#
# The image of the server, and one for backups: `make image`, or
#
#   docker build --target run    --build-arg REVISION=$(git rev-parse --short=12 HEAD) -t switchboard .
#   docker build --target backup --build-arg REVISION=$(git rev-parse --short=12 HEAD) -t switchboard-backup .
#
# Both run as an unprivileged user and need no writable root file system.

ARG RUST_VERSION=1.95.0
# The major version of the server that is backed up: pg_dump refuses a newer one.
ARG POSTGRES_VERSION=17.6

FROM rust:${RUST_VERSION}-bookworm AS build
# Lists the crates inside the program, where scanners and SBOM tools find them.
ARG CARGO_AUDITABLE_VERSION=0.7.7
RUN cargo install --locked --version "${CARGO_AUDITABLE_VERSION}" cargo-auditable
WORKDIR /src
COPY . .
# What build_info shows: git is not in the context.
ARG REVISION=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    SWITCHBOARD_REVISION="${REVISION}" cargo auditable build --release --locked --bin switchboard \
    && mkdir -p /out/data/backups \
    && cp target/release/switchboard /out/switchboard \
    && strip /out/switchboard

# `switchboard backup` and `restore` need pg_dump and pg_restore.
FROM postgres:${POSTGRES_VERSION}-bookworm AS backup
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="switchboard-backup" \
      org.opencontainers.image.description="Backups of Switchboard" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/switchboard /usr/local/bin/switchboard
COPY --from=build --chown=65532:65532 /out/data /var/lib/switchboard
ENV SWITCHBOARD_DATA_DIR=/var/lib/switchboard
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/switchboard"]
CMD ["backup"]

# No shell, no package manager. Debian 12 as the stage above, so that the C library is the one it was linked with. It
# has no dated tags: CI keeps the SBOM of what it built.
FROM gcr.io/distroless/cc-debian12:nonroot AS run
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="switchboard" \
      org.opencontainers.image.description="Service-request backend of a field-service call centre" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/switchboard /usr/local/bin/switchboard
# Files, and what `--demo` makes up; replicas share it, or use a bucket (SWITCHBOARD_FILES_STORE). A new volume that
# is mounted here belongs to whom the directory belongs to.
COPY --from=build --chown=65532:65532 /out/data /var/lib/switchboard
ENV SWITCHBOARD_DATA_DIR=/var/lib/switchboard \
    SWITCHBOARD_HTTP_ADDR=0.0.0.0:8000 \
    SWITCHBOARD_OPS_ADDR=0.0.0.0:9464 \
    SWITCHBOARD_LOG_FORMAT=json
USER 65532:65532
EXPOSE 8000 9464
STOPSIGNAL SIGTERM
# The program asks its own ops listener whether it is ready: there is nothing else in here that could.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["/usr/local/bin/switchboard", "health"]
ENTRYPOINT ["/usr/local/bin/switchboard"]
CMD ["serve"]
