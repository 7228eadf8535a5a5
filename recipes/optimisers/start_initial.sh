# Each round starts from pi_0 again; the paper's starts from the previous policy.
: "${START:=initial}"
