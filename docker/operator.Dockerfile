# The operator. Build from the repository's root: docker build -f docker/operator.Dockerfile -t REGISTRY/operator:0.1.0 .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static -C force-unwind-tables=no" cargo build --release --locked --target x86_64-unknown-linux-gnu -p pbx-operator

FROM scratch
COPY --from=build /src/target/x86_64-unknown-linux-gnu/release/pbx-operator /usr/bin/pbx-operator
USER 65532:65532
ENTRYPOINT ["/usr/bin/pbx-operator"]
