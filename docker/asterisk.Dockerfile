# Asterisk 22 of Debian, as uid 101. Any other image with `asterisk` on its PATH will do as well.
# docker build -f docker/asterisk.Dockerfile -t REGISTRY/asterisk:22 docker
FROM docker.io/library/debian:forky-slim AS documentation
RUN apt-get update && apt-get install --yes --no-install-recommends asterisk xsltproc
COPY asterisk-documentation.xsl /
RUN xsltproc --novalid --nonet /asterisk-documentation.xsl /usr/share/asterisk/documentation/core-en_US.xml > /core-en_US.xml

FROM docker.io/library/debian:forky-slim
# The user first, with the ids that the pods run under.
RUN groupadd --system --gid 101 asterisk && useradd --system --uid 101 --gid 101 --home-dir /var/lib/asterisk asterisk \
    && apt-get update \
    && apt-get install --yes --no-install-recommends asterisk \
    && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man
# Half of Debian's modules and a fifth of its built-in help, and so a third of the time to start.
COPY asterisk-modules.conf /etc/asterisk/modules.conf
COPY --from=documentation /core-en_US.xml /usr/share/asterisk/documentation/core-en_US.xml
USER 101:101
CMD ["asterisk", "-f"]
