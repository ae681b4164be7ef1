{{/* The sidecar as a native sidecar container: it is ready before the agent starts, and stops after it. */}}
{{- define "outcome-sidecar.container" -}}
name: sidecar
image: {{ include "outcome-sidecar.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run]
restartPolicy: Always
env:
  {{- if .Values.sidecar.routes }}
  - name: SIDECAR_ROUTES
    value: {{ include "outcome-sidecar.routes" . | quote }}
  {{- else if include "outcome-sidecar.upstream" . }}
  - name: SIDECAR_UPSTREAM
    value: {{ include "outcome-sidecar.upstream" . | quote }}
  - name: SIDECAR_LISTEN
    value: 127.0.0.1:{{ .Values.sidecar.port }}
  {{- end }}
  # Every address, because the kubelet's probes come from outside the pod; hence the token.
  - name: SIDECAR_ADMIN_LISTEN
    value: 0.0.0.0:{{ .Values.sidecar.adminPort }}
  - name: SIDECAR_REDIS_URL
    {{- if .Values.redis.existingSecret }}
    valueFrom:
      secretKeyRef: {name: {{ .Values.redis.existingSecret }}, key: {{ .Values.redis.existingSecretKey }}}
    {{- else }}
    value: {{ required "redis.url is needed: where sessions live, for example redis://redis:6379/0 (or redis.existingSecret)" .Values.redis.url | quote }}
    {{- end }}
  - name: SIDECAR_BILLING_URL
    value: {{ include "outcome-sidecar.billingUrl" . | quote }}
  - name: SIDECAR_TENANT
    value: {{ .Values.sidecar.tenant | quote }}
  - name: SIDECAR_MODE
    value: {{ .Values.sidecar.mode }}
  {{- with .Values.sidecar.customer }}
  - name: SIDECAR_CUSTOMER
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.sidecar.sessionKeys }}
  - name: SIDECAR_SESSION_KEYS
    value: {{ . | quote }}
  {{- end }}
  - name: SIDECAR_PRESERVE_HOST
    value: {{ .Values.sidecar.preserveHost | quote }}
  - name: SIDECAR_LOG_LEVEL
    value: {{ .Values.sidecar.logLevel }}
  - name: SIDECAR_DRAIN_SECONDS
    value: {{ .Values.sidecar.drainSeconds | quote }}
  - name: SIDECAR_CAPTURE_BODY_BYTES
    value: {{ .Values.sidecar.captureBodyMebibytes }}MiB
  - name: SIDECAR_QUEUE_DIR
    value: /queue
  - name: SIDECAR_QUEUE_BYTES
    value: {{ .Values.sidecar.queue.mebibytes }}MiB
  - name: SIDECAR_DATA_DIR
    value: /var/lib/sidecar/data
  - name: SIDECAR_JOURNAL_HOURS
    value: {{ .Values.sidecar.journal.hours | quote }}
  - name: SIDECAR_JOURNAL_BYTES
    value: {{ .Values.sidecar.journal.mebibytes }}MiB
  {{- if .Values.plan }}
  - name: SIDECAR_PLAN
    value: /etc/sidecar/plan.yaml
  {{- end }}
  {{- include "outcome-sidecar.secretEnv" . | nindent 2 }}
  {{- with .Values.sidecar.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: sidecar-admin, containerPort: {{ .Values.sidecar.adminPort }}}
# All three are answered by the proxy from memory: Redis, billing and observer may be away without a restart.
startupProbe:
  httpGet: {path: /readyz, port: sidecar-admin}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: sidecar-admin}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: sidecar-admin}
  periodSeconds: 5
resources: {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext: {{- include "outcome-sidecar.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: sidecar-queue, mountPath: /queue}
  - {name: sidecar-data, mountPath: /var/lib/sidecar}
  - {name: sidecar-tmp, mountPath: /tmp}
  - {name: sidecar-secrets, mountPath: /run/secrets/sidecar, readOnly: true}
  {{- if .Values.plan }}
  # The directory, not the file (no subPath): a changed ConfigMap then reaches the running container.
  - {name: sidecar-plan, mountPath: /etc/sidecar, readOnly: true}
  {{- end }}
{{- end }}

{{- define "outcome-sidecar.volumes" -}}
- name: sidecar-queue
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sidecar.queue.volumeMebibytes }}Mi}
- name: sidecar-data
  emptyDir: {sizeLimit: {{ .Values.sidecar.journal.volumeMebibytes }}Mi}
- name: sidecar-tmp
  emptyDir: {sizeLimit: 64Mi}
- name: sidecar-secrets
  secret:
    secretName: {{ include "outcome-sidecar.secretName" . }}
    defaultMode: 0440
    items: {{- include "outcome-sidecar.secretItems" (include "outcome-sidecar.sidecarKeys" .) | nindent 6 }}
{{- if .Values.plan }}
- name: sidecar-plan
  configMap: {name: {{ include "outcome-sidecar.fullname" . }}-plan}
{{- end }}
{{- end }}
