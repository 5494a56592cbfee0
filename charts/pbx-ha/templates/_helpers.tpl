{{/* Labels of everything in this chart. */}}
{{- define "pbx-ha.labels" -}}
{{ include "pbx-ha.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pbx-ha.selector" -}}
app.kubernetes.io/name: pbx-ha-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Name of the operator's objects. */}}
{{- define "pbx-ha.name" -}}
{{- if contains "pbx-ha" .Release.Name -}}
{{ printf "%s-operator" .Release.Name | trunc 52 }}
{{- else -}}
{{ printf "%s-pbx-ha-operator" .Release.Name | trunc 52 }}
{{- end -}}
{{- end }}

{{- define "pbx-ha.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "pbx-ha.name" .) }}
{{- end }}

{{/* Cluster-wide objects carry the namespace too, so that two releases do not meet. */}}
{{- define "pbx-ha.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "pbx-ha.name" .) }}
{{- end }}

{{- define "pbx-ha.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
