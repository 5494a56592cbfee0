# Sidecar and guard. Build from the repository's root: docker build -f docker/sidecar.Dockerfile -t REGISTRY/sidecar:0.1.0 .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static: the guard is copied into containers of any image, whatever libc they have.
RUN RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target x86_64-unknown-linux-gnu -p pbx-sidecar -p pbx-guard

FROM scratch
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/pbx-sidecar /usr/bin/pbx-sidecar
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/pbx-guard /usr/bin/pbx-guard
USER 101:101
ENTRYPOINT ["/usr/bin/pbx-guard", "sidecar", "--", "/usr/bin/pbx-sidecar", "run"]
