{{/* Names and labels. Every name is cut to leave room for a suffix within the 63 characters of a DNS label. */}}
{{- define "wildrydes.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods: dict "root" . "component" NAME */}}
{{- define "wildrydes.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "wildrydes.labels" -}}
{{ include "wildrydes.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "wildrydes.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- with $image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "wildrydes.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "wildrydes.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The Secret with user name and password of a role at the broker: dict "root" . "role" NAME */}}
{{- define "wildrydes.secret" -}}
{{- $user := index .root.Values.broker.users .role | default dict -}}
{{- $user.existingSecret | default (printf "%s-broker-%s" (include "wildrydes.fullname" .root) .role) -}}
{{- end -}}

{{/* The user of a role at the broker: dict "root" . "role" NAME */}}
{{- define "wildrydes.user" -}}
{{- $user := index .root.Values.broker.users .role | default dict -}}
{{- $user.name | default (printf "%s%s" .root.Values.broker.namespace .role) -}}
{{- end -}}

{{- define "wildrydes.brokerPort" -}}
{{- .Values.broker.port | default (ternary 5671 5672 .Values.broker.tls.enabled) | int -}}
{{- end -}}

{{- define "wildrydes.managementPort" -}}
{{- .Values.broker.management.port | default (ternary 15671 15672 .Values.broker.management.tls) | int -}}
{{- end -}}

{{/* RabbitMQ's management API, without user and path */}}
{{- define "wildrydes.managementUrl" -}}
{{- $management := .Values.broker.management -}}
{{ ternary "https" "http" $management.tls }}://{{ $management.host | default .Values.broker.host }}:{{ include "wildrydes.managementPort" . }}
{{- end -}}

{{/* The address of the broker for a role: dict "root" . "role" NAME */}}
{{- define "wildrydes.brokerUrl" -}}
{{- $broker := .root.Values.broker -}}
{{ ternary "amqps" "amqp" $broker.tls.enabled }}://{{ include "wildrydes.user" . | urlquery }}@{{ $broker.host }}:{{ include "wildrydes.brokerPort" .root }}/{{ $broker.virtualHost | urlquery }}
{{- end -}}

{{/* Settings, section by section, as environment variables in a map: dict "settings" MAP */}}
{{- define "wildrydes.variables" -}}
{{- range $section, $keys := .settings }}
{{- range $key, $value := $keys }}
{{- if kindIs "map" $value }}
{{- fail (printf "settings.%s.%s is a table: only texts, numbers, true, false and lists of texts can be set here" $section $key) }}
{{- end }}
{{ printf "WILDRYDES__%s__%s" ($section | upper | replace "-" "_") ($key | upper) }}: {{ if kindIs "slice" $value }}{{ join "," $value | quote }}{{ else if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings of every process, as environment variables in a map */}}
{{- define "wildrydes.sharedVariables" -}}
{{- $store := .Values.store -}}
WILDRYDES__STORE__URL: {{ $store.url | quote }}
{{- with $store.endpoint }}
WILDRYDES__STORE__ENDPOINT: {{ . | quote }}
{{- end }}
{{- with $store.region }}
WILDRYDES__STORE__REGION: {{ . | quote }}
{{- end }}
{{- if $store.pathStyle }}
WILDRYDES__STORE__PATH_STYLE: "true"
{{- end }}
{{- if $store.allowHttp }}
WILDRYDES__STORE__ALLOW_HTTP: "true"
{{- end }}
WILDRYDES__BROKER__PASSWORD_FILE: /run/wildrydes/password
WILDRYDES__BROKER__DECLARE: never
{{- with .Values.broker.namespace }}
WILDRYDES__BROKER__NAMESPACE: {{ . | quote }}
{{- end }}
WILDRYDES__BROKER__MANAGEMENT_URL: {{ include "wildrydes.managementUrl" . | quote }}
{{- if .Values.broker.tls.caSecret }}
WILDRYDES__BROKER__CA_FILE: /run/wildrydes-ca/{{ .Values.broker.tls.caKey }}
{{- end }}
{{- if .Values.broker.tls.clientSecret }}
WILDRYDES__BROKER__CLIENT_CERTIFICATE_FILE: /run/wildrydes-client/tls.crt
WILDRYDES__BROKER__CLIENT_KEY_FILE: /run/wildrydes-client/tls.key
{{- end }}
{{- include "wildrydes.variables" (dict "settings" .Values.settings) }}
{{- end -}}

{{/* The environment of a process: dict "root" . "role" NAME "extra" MAP "env" LIST */}}
{{- define "wildrydes.environment" -}}
envFrom:
  - configMapRef:
      name: {{ include "wildrydes.fullname" .root }}
{{- with .root.Values.store.existingSecret }}
  - secretRef:
      name: {{ . }}
{{- end }}
env:
  - name: WILDRYDES__BROKER__URL
    value: {{ include "wildrydes.brokerUrl" . | quote }}
{{- range $name, $value := .extra }}
  - name: {{ $name }}
    value: {{ $value | quote }}
{{- end }}
{{- with .env }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{/* The environment of a hook, which runs before the ConfigMap exists: dict "root" . "role" NAME "extra" MAP */}}
{{- define "wildrydes.hookEnvironment" -}}
{{- with .root.Values.store.existingSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
env:
{{- $variables := merge (dict "WILDRYDES__BROKER__URL" (include "wildrydes.brokerUrl" .)) (.extra | default dict) (include "wildrydes.sharedVariables" .root | fromYaml) }}
{{- range $name, $value := $variables }}
  - name: {{ $name }}
    value: {{ $value | quote }}
{{- end }}
{{- with .root.Values.defaults.env }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{/* What every container mounts: dict "root" . */}}
{{- define "wildrydes.mounts" -}}
- {name: password, mountPath: /run/wildrydes, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.broker.tls.caSecret }}
- {name: broker-ca, mountPath: /run/wildrydes-ca, readOnly: true}
{{- end }}
{{- if .root.Values.broker.tls.clientSecret }}
- {name: broker-client, mountPath: /run/wildrydes-client, readOnly: true}
{{- end }}
{{- if .root.Values.store.existingClaim }}
- {name: store, mountPath: {{ trimPrefix "file://" .root.Values.store.url }}}
{{- end }}
{{- end -}}

{{/* The volumes behind the mounts: dict "root" . "role" NAME "tmpSize" QUANTITY */}}
{{- define "wildrydes.volumes" -}}
- name: password
  secret:
    secretName: {{ include "wildrydes.secret" . }}
    defaultMode: 288 # 0440
    items:
      - {key: password, path: password}
- name: tmp
  emptyDir:
    sizeLimit: {{ .tmpSize }}
{{- with .root.Values.broker.tls.caSecret }}
- name: broker-ca
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440
{{- end }}
{{- with .root.Values.broker.tls.clientSecret }}
- name: broker-client
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440
{{- end }}
{{- with .root.Values.store.existingClaim }}
- name: store
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- end -}}

{{/* Restricted pod security. User and group are those of the image. */}}
{{- define "wildrydes.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "wildrydes.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What a pod of any kind has in common: dict "root" . "spec" SETTINGS */}}
{{- define "wildrydes.podCommon" -}}
serviceAccountName: {{ include "wildrydes.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "wildrydes.podSecurity" .root | nindent 2 }}
{{- with .root.Values.image.secrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .spec.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spec.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The settings of a worker or the gateway: those of `defaults`, replaced by its own: dict "root" . "own" MAP */}}
{{- define "wildrydes.merged" -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy .own) | toYaml -}}
{{- end -}}

{{/* Seconds between SIGTERM and SIGKILL: the drain deadline, rounded up, the pause before SIGTERM, and a margin */}}
{{- define "wildrydes.grace" -}}
{{- add (div (add .drainDeadlineMs 999 | int64) 1000) (.preStopSeconds | default 0 | int64) .graceMarginSeconds -}}
{{- end -}}
