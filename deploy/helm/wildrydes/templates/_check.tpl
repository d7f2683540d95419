{{/* Refuses combinations of values that the schema cannot see, each with a sentence that says what to do. */}}
{{- define "wildrydes.check" -}}
{{- $values := .Values -}}
{{- if not $values.broker.host -}}
{{- fail "broker.host is empty: name the host of RabbitMQ, as in --set broker.host=rabbitmq." -}}
{{- end -}}
{{- if hasPrefix "amq." $values.broker.namespace -}}
{{- fail (printf "broker.namespace is %s: RabbitMQ reserves names that begin with amq." $values.broker.namespace) -}}
{{- end -}}
{{- if not (regexMatch "^((s3|gs|az)://[^/]+(/.*)?|file:///.+)$" $values.store.url) -}}
{{- fail (printf "store.url is %q: expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or file:///FOLDER with store.existingClaim." $values.store.url) -}}
{{- end -}}
{{- if and $values.keda.enabled $values.hpa.enabled -}}
{{- fail "keda.enabled and hpa.enabled are both true: two scalers would fight over the replicas. Enable one of them." -}}
{{- end -}}
{{- if and (hasPrefix "file://" $values.store.url) (not $values.store.existingClaim) -}}
{{- fail (printf "store.url is the folder %s, but store.existingClaim is empty: each pod would have a store of its own. Name a ReadWriteMany claim, or use s3://, gs:// or az://." $values.store.url) -}}
{{- end -}}
{{- if and $values.store.existingClaim (not (hasPrefix "file:///" $values.store.url)) -}}
{{- fail (printf "store.existingClaim is %s, but store.url is not file:///…: nothing would be written to the claim. Remove one of them." $values.store.existingClaim) -}}
{{- end -}}
{{- if and (hasPrefix "http://" ($values.store.endpoint | default "")) (not $values.store.allowHttp) -}}
{{- fail (printf "store.endpoint is %s, which encrypts nothing: set store.allowHttp=true if the network is trusted, or use https://." $values.store.endpoint) -}}
{{- end -}}
{{- if and (or $values.broker.tls.caSecret $values.broker.tls.clientSecret) (not $values.broker.tls.enabled) -}}
{{- fail "broker.tls.caSecret or broker.tls.clientSecret is set, but broker.tls.enabled is false: nothing would be encrypted. Set broker.tls.enabled=true." -}}
{{- end -}}
{{- $gateway := $values.gateway -}}
{{- if $gateway.enabled -}}
{{- if and (eq $gateway.auth "keys") (not $gateway.keys) -}}
{{- fail "gateway.keys is empty: no request would be accepted. Add the entry that `wildrydes key NAME` prints, or set gateway.auth=off if only trusted clients reach the gateway." -}}
{{- end -}}
{{- if and $gateway.ingress.enabled (not $gateway.ingress.hosts) -}}
{{- fail "gateway.ingress.enabled is true, but gateway.ingress.hosts is empty: name the host under which clients reach the gateway." -}}
{{- end -}}
{{- if and $gateway.httpRoute.enabled (not $gateway.httpRoute.parentRefs) -}}
{{- fail "gateway.httpRoute.enabled is true, but gateway.httpRoute.parentRefs is empty: name the Gateway that the route belongs to." -}}
{{- end -}}
{{- end -}}
{{- if and $values.externalSecrets.enabled (not $values.externalSecrets.store.name) -}}
{{- fail "externalSecrets.enabled is true, but externalSecrets.store.name is empty: name the SecretStore that holds the passwords." -}}
{{- end -}}
{{- if and $values.hooks.users.enabled (not $values.hooks.users.adminSecret) -}}
{{- fail "hooks.users.enabled is true, but hooks.users.adminSecret is empty: name the Secret with username and password of a RabbitMQ administrator." -}}
{{- end -}}
{{- if and $values.networkPolicy.brokerPods.enabled (not $values.networkPolicy.brokerPods.selector) -}}
{{- fail "networkPolicy.brokerPods.enabled is true, but networkPolicy.brokerPods.selector is empty: it would select every pod of the namespace. Name the labels of the broker's pods." -}}
{{- end -}}
{{- $all := deepCopy $values.workers -}}
{{- $_ := set $all "gateway" $gateway -}}
{{- range $name, $own := $all -}}
{{- $spec := include "wildrydes.merged" (dict "root" $ "own" $own) | fromYaml -}}
{{- if $spec.enabled -}}
{{- $scaling := $spec.scaling -}}
{{- range $section, $_ := $spec.settings -}}
{{- if has $section (list "broker" "store" "run") -}}
{{- fail (printf "%s: settings.%s would replace what the chart sets itself: use the values broker, store and drainDeadlineMs, or the top-level settings." $name $section) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $scaling.min) (int $scaling.max) -}}
{{- fail (printf "%s: scaling.min %d is greater than scaling.max %d." $name (int $scaling.min) (int $scaling.max)) -}}
{{- end -}}
{{- if and $values.keda.enabled $scaling.enabled (eq (int $scaling.min) 0) (not $scaling.triggers) -}}
{{- fail (printf "%s: scaling.min is 0 without a queue in scaling.triggers: nothing would ever start it. Set scaling.min to 1 or more." $name) -}}
{{- end -}}
{{- if and (eq $name "scorer" "weather-fetcher" "gateway") $values.keda.enabled $scaling.enabled (eq (int $scaling.min) 0) -}}
{{- fail (printf "%s: scaling.min is 0, but it answers requests that expire after a minute: set scaling.min to 1 or more." $name) -}}
{{- end -}}
{{- if and $values.keda.enabled $scaling.enabled (lt (int $scaling.cooldownPeriod) 180) -}}
{{- fail (printf "%s: scaling.cooldownPeriod is %d s: a message waits in its retry queue for up to 120 s, so the worker would stop meanwhile. Set 180 or more." $name (int $scaling.cooldownPeriod)) -}}
{{- end -}}
{{- range $resource, $limit := ($spec.resources.limits | default dict) -}}
{{- $request := index ($spec.resources.requests | default dict) $resource -}}
{{- if and $request (gt (include "wildrydes.quantity" $request | float64) (include "wildrydes.quantity" $limit | float64)) -}}
{{- fail (printf "%s: resources.requests.%s %v is greater than resources.limits.%s %v." $name $resource $request $resource $limit) -}}
{{- end -}}
{{- end -}}
{{- if and $values.hpa.enabled $scaling.enabled (not (($spec.resources.requests | default dict).cpu)) -}}
{{- fail (printf "%s: resources.requests.cpu is missing: hpa.enabled scales on a share of it." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity, such as 512Mi or 250m, as a number */}}
{{- define "wildrydes.quantity" -}}
{{- $text := toString . -}}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- mulf (trimSuffix $unit $text | float64) (index $units $unit | default 1.0) -}}
{{- end -}}
