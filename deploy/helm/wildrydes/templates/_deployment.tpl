{{/*
The Deployment of one process with its PodDisruptionBudget and its scaler.
dict "root" . "name" NAME "spec" SETTINGS "extra" VARIABLES "ports" LIST "mounts" LIST "volumes" LIST "arguments" LIST
*/}}
{{- define "wildrydes.process" -}}
{{- $root := .root -}}
{{- $spec := .spec -}}
{{- $fullname := printf "%s-%s" (include "wildrydes.fullname" $root) .name -}}
{{- $labels := dict "root" $root "component" .name -}}
{{- $scaled := and $spec.scaling.enabled (or $root.Values.keda.enabled $root.Values.hpa.enabled) -}}
{{- $variables := merge (dict "WILDRYDES__RUN__DRAIN_DEADLINE_MS" (toString (int64 $spec.drainDeadlineMs))) .extra (include "wildrydes.variables" (dict "settings" $spec.settings) | fromYaml) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $fullname }}
  labels:
    {{- include "wildrydes.labels" $labels | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $spec.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  {{- with $spec.strategy }}
  strategy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "wildrydes.selector" $labels | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "wildrydes.labels" $labels | nindent 8 }}
        {{- with $spec.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
        {{- with $spec.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "wildrydes.podCommon" (dict "root" $root "spec" $spec) | nindent 6 }}
      terminationGracePeriodSeconds: {{ include "wildrydes.grace" $spec }}
      {{- with $spec.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $spec.topologySpread }}
      topologySpreadConstraints:
        {{- range $spec.topologySpread }}
        - {{ toYaml . | nindent 10 | trim }}
          labelSelector:
            matchLabels:
              {{- include "wildrydes.selector" $labels | nindent 14 }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "wildrydes.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.policy }}
          command: [{{ .name }}]
          {{- with .arguments }}
          args:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- include "wildrydes.environment" (dict "root" $root "role" .name "extra" $variables "env" $spec.env) | nindent 10 }}
          ports:
            - {name: health, containerPort: 8081}
            {{- range .ports }}
            - {{ toJson . }}
            {{- end }}
          securityContext:
            {{- include "wildrydes.containerSecurity" $root | nindent 12 }}
          resources:
            {{- toYaml $spec.resources | nindent 12 }}
          livenessProbe:
            httpGet: {path: /livez, port: health}
            {{- toYaml $spec.livenessProbe | nindent 12 }}
          readinessProbe:
            httpGet: {path: /readyz, port: health}
            {{- toYaml $spec.readinessProbe | nindent 12 }}
          {{- with $spec.preStopSeconds }}
          lifecycle:
            preStop:
              exec: {command: [sleep, {{ . | quote }}]}
          {{- end }}
          volumeMounts:
            {{- include "wildrydes.mounts" $labels | nindent 12 }}
            {{- range .mounts }}
            - {{ toJson . }}
            {{- end }}
      volumes:
        {{- include "wildrydes.volumes" (dict "root" $root "role" .name "tmpSize" $spec.tmpSize) | nindent 8 }}
        {{- range .volumes }}
        - {{ toJson . }}
        {{- end }}
{{- if $spec.podDisruptionBudget }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $fullname }}
  labels:
    {{- include "wildrydes.labels" $labels | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "wildrydes.selector" $labels | nindent 6 }}
{{- end }}
{{- if and $scaled $root.Values.keda.enabled $spec.scaling.triggers }}
---
{{ include "wildrydes.scaledObject" (dict "root" $root "name" .name "fullname" $fullname "spec" $spec) }}
{{- else if $scaled }}
---
{{ include "wildrydes.autoscaler" (dict "root" $root "name" .name "fullname" $fullname "spec" $spec) }}
{{- end }}
{{- end -}}
