# Sidecar and guard. Build from the repository's root: docker build -f docker/sidecar.Dockerfile -t REGISTRY/sidecar:0.1.0 .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static: the guard is copied into containers of any image, whatever libc they have.
RUN RUSTFLAGS="-C target-feature=+crt-static -C force-unwind-tables=no" cargo build --release --locked --target x86_64-unknown-linux-gnu -p pbx-sidecar -p pbx-guard

# What loads the fence of floating addresses (network.mode Host), with the libraries it needs and nothing else.
FROM docker.io/library/debian:bookworm-slim AS nft
RUN apt-get update && apt-get install --yes --no-install-recommends nftables \
 && mkdir /nft && for file in /usr/sbin/nft $(ldd /usr/sbin/nft | grep -o '/[^ ]*'); do cp --parents --dereference "$file" /nft; done

FROM scratch
COPY --from=nft /nft /
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/pbx-sidecar /usr/bin/pbx-sidecar
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/pbx-guard /usr/bin/pbx-guard
USER 101:101
ENTRYPOINT ["/usr/bin/pbx-guard", "sidecar", "--", "/usr/bin/pbx-sidecar", "run"]
