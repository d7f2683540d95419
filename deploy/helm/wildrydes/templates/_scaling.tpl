{{/* The scaler on queues: dict "root" . "name" NAME "fullname" NAME "spec" SETTINGS */}}
{{- define "wildrydes.scaledObject" -}}
{{- $root := .root -}}
{{- $keda := $root.Values.keda -}}
{{- $scaling := .spec.scaling -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .fullname }}
  labels:
    {{- include "wildrydes.labels" (dict "root" $root "component" .name) | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ .fullname }}
  minReplicaCount: {{ $scaling.min }}
  maxReplicaCount: {{ $scaling.max }}
  pollingInterval: {{ $keda.pollingInterval }}
  cooldownPeriod: {{ $scaling.cooldownPeriod }}
  {{- if $keda.fallback.enabled }}
  fallback:
    failureThreshold: {{ $keda.fallback.failureThreshold }}
    replicas: {{ max (int $scaling.min) 1 }}
    behavior: currentReplicasIfHigher
  {{- end }}
  advanced:
    restoreToOriginalReplicaCount: false
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml $scaling.behavior | nindent 8 }}
  triggers:
    {{- range $scaling.triggers }}
    - type: rabbitmq
      metadata:
        protocol: http
        host: {{ printf "%s/%s" (include "wildrydes.managementUrl" $root) ($root.Values.broker.virtualHost | urlquery) | quote }}
        queueName: {{ printf "%s%s" $root.Values.broker.namespace .queue | quote }}
        mode: QueueLength
        value: {{ .messages | quote }}
        activationValue: "0"
      authenticationRef:
        name: {{ include "wildrydes.fullname" $root }}-scaler
    {{- end }}
{{- end -}}

{{/* The scaler on CPU: dict "root" . "name" NAME "fullname" NAME "spec" SETTINGS */}}
{{- define "wildrydes.autoscaler" -}}
{{- $scaling := .spec.scaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .fullname }}
  labels:
    {{- include "wildrydes.labels" (dict "root" .root "component" .name) | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .fullname }}
  minReplicas: {{ max (int $scaling.min) 1 }}
  maxReplicas: {{ $scaling.max }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $scaling.cpuPercent }}
  behavior:
    {{- toYaml $scaling.behavior | nindent 4 }}
{{- end -}}
