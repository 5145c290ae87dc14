# Ingle on processors: one image for all of x86-64, the best of ggml's CPU variants is picked at start.
#   docker build -t ingle .
#   docker run -p 8080:8080 -v ingle-models:/models ingle smollm2-135m-instruct
# Arguments after the image's name are LocalAI's: models, flags, or a subcommand.

ARG RUST_VERSION=1.95.0
FROM rust:${RUST_VERSION}-bookworm AS build

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake espeak-ng g++ libclang-dev make ninja-build \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .
ENV DIST_TARGET_DIR=/build
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build \
    scripts/dist.sh /dist && scripts/rootfs.sh /dist /rootfs

FROM scratch
COPY --from=build /rootfs /

# The cache holds the weights that the models folder links to, so both live on the volume.
ENV PATH=/usr/local/bin:/usr/bin \
    HOME=/var/lib/ingle \
    LOCALAI_ADDRESS=0.0.0.0:8080 \
    LOCALAI_MODELS_PATH=/models \
    XDG_CACHE_HOME=/models/.cache

USER 10001:10001
WORKDIR /var/lib/ingle
VOLUME /models
EXPOSE 8080
# Ready once the models named on the command line are loaded; large ones take a while.
HEALTHCHECK --start-period=10m --interval=15s --timeout=6s --retries=3 CMD ["ingle", "health"]

# Without a subcommand the program serves: models and flags can follow the image's name straight away.
ENTRYPOINT ["ingle"]
