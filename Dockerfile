# syntax=docker/dockerfile:1
# The sluice program alone: docker build -t sluice .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches are not part of the image, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin sluice && cp target/release/sluice /usr/local/bin/sluice

FROM debian:bookworm-slim
# Authorities for TLS towards destinations and object stores.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/sluice sluice
COPY --from=build /usr/local/bin/sluice /usr/local/bin/sluice
USER sluice
WORKDIR /var/lib/sluice
# Gateway; health and metrics.
EXPOSE 8080 8081
ENTRYPOINT ["sluice"]
CMD ["all"]
