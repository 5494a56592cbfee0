<?xml version="1.0"?>
<!-- Asterisk reads its documentation at every start and searches it some thousand times: two thirds of a start. What it
     needs of it are the options of its configuration files, and the names and one-line descriptions of the rest, so that is
     what is left (`core show application Dial` then says only what Dial is for). -->
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:strip-space elements="*"/>
  <xsl:template match="@*|node()">
    <xsl:copy><xsl:apply-templates select="@*|node()"/></xsl:copy>
  </xsl:template>
  <xsl:template match="comment()|description|see-also|since"/>
  <xsl:template match="/docs/module"/>
  <xsl:template match="/docs/*[not(self::configInfo)]/syntax|/docs/*[not(self::configInfo)]/responses"/>
  <xsl:template match="/docs/managerEvent//syntax"/>
</xsl:stylesheet>
