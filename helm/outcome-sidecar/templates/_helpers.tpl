{{- define "outcome-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "outcome-sidecar.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "outcome-sidecar.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "outcome-sidecar.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "outcome-sidecar.selector" -}}
app.kubernetes.io/name: {{ include "outcome-sidecar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "outcome-sidecar.labels" -}}
{{ include "outcome-sidecar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "outcome-sidecar.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "outcome-sidecar.containerSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "outcome-sidecar.podSecurity" -}}
runAsNonRoot: true
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "outcome-sidecar.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The Secret with the tokens, and which keys it has: the list decides which *_FILE settings there are. */}}
{{- define "outcome-sidecar.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "outcome-sidecar.fullname" .) }}
{{- end }}

{{- define "outcome-sidecar.secretKeys" -}}
{{- if .Values.secrets.existingSecret }}
{{- .Values.secrets.existingSecretKeys | join " " }}
{{- else }}
{{- $keys := list "admin-token" "billing-token" }}
{{- if .Values.secrets.hashKey }}{{ $keys = append $keys "hash-key" }}{{ end }}
{{- if .Values.secrets.billingViewerToken }}{{ $keys = append $keys "billing-viewer-token" }}{{ end }}
{{- if .Values.secrets.billingAlertSecret }}{{ $keys = append $keys "billing-alert-secret" }}{{ end }}
{{- range $source := keys .Values.secrets.webhooks | sortAlpha }}{{ $keys = append $keys (printf "webhook-%s" $source) }}{{ end }}
{{- $keys | join " " }}
{{- end }}
{{- end }}

{{/* What the billing API reads of it; the sidecar reads all but what is the billing API's alone. */}}
{{- define "outcome-sidecar.billingKeys" -}}
{{- $there := splitList " " (include "outcome-sidecar.secretKeys" .) -}}
billing-token{{ range $key := list "billing-viewer-token" "billing-alert-secret" }}{{ if has $key $there }} {{ $key }}{{ end }}{{ end }}
{{- end }}

{{- define "outcome-sidecar.sidecarKeys" -}}
{{- without (splitList " " (include "outcome-sidecar.secretKeys" .)) "billing-alert-secret" "billing-viewer-token" | join " " }}
{{- end }}

{{- define "outcome-sidecar.secretItems" -}}
{{- range $key := splitList " " . }}
- {key: {{ $key }}, path: {{ $key }}}
{{- end }}
{{- end }}

{{- define "outcome-sidecar.secretEnv" -}}
{{- range $key := splitList " " (include "outcome-sidecar.sidecarKeys" .) }}
{{- $name := $key | replace "webhook-" "webhook-secret-" | replace "-" "_" | upper }}
- name: SIDECAR_{{ $name }}_FILE
  value: /run/secrets/sidecar/{{ $key }}
{{- end }}
{{- end }}

{{/* Where things are. */}}
{{- define "outcome-sidecar.billingUrl" -}}
{{- if .Values.billing.enabled -}}
http://{{ include "outcome-sidecar.fullname" . }}-billing:{{ .Values.billing.port }}
{{- else -}}
{{- required "billing.url is needed when billing.enabled is false: where the central billing API is" .Values.billing.url }}
{{- end }}
{{- end }}

{{- define "outcome-sidecar.upstream" -}}
{{- if .Values.fakeLlm.enabled -}}
http://{{ include "outcome-sidecar.fullname" . }}-fake-llm:9000
{{- else if .Values.sidecar.routes -}}
{{- (first .Values.sidecar.routes).upstream }}
{{- else -}}
{{- .Values.sidecar.upstream }}
{{- end }}
{{- end }}

{{- define "outcome-sidecar.routes" -}}
{{- $routes := list }}
{{- range .Values.sidecar.routes }}{{ $routes = append $routes (printf "127.0.0.1:%d=%s" (int .port) .upstream) }}{{ end }}
{{- $routes | join "," }}
{{- end }}

{{/* Mistakes that a schema cannot see. */}}
{{- define "outcome-sidecar.check" -}}
{{- if le (int .Values.sidecar.queue.volumeMebibytes) (mul 2 (int .Values.sidecar.queue.mebibytes)) }}
{{- fail "sidecar.queue.volumeMebibytes must be more than twice sidecar.queue.mebibytes: the volume holds the queue and, beside it, as much of streams that run long" }}
{{- end }}
{{- if le (int .Values.sidecar.journal.volumeMebibytes) (int .Values.sidecar.journal.mebibytes) }}
{{- fail "sidecar.journal.volumeMebibytes must be more than sidecar.journal.mebibytes" }}
{{- end }}
{{- if and .Values.billing.enabled (gt (int .Values.billing.replicas) 1) (not .Values.billing.database.url) (not .Values.billing.database.existingSecret) }}
{{- fail "billing.replicas above 1 needs billing.database: SQLite is one process's own" }}
{{- end }}
{{- $exports := .Values.billing.exports }}
{{- if gt (len (compact (list $exports.file $exports.existingConfigMap $exports.existingSecret))) 1 }}
{{- fail "billing.exports: give one of file, existingConfigMap and existingSecret" }}
{{- end }}
{{- end }}
