# Makes what the test needs at the EC2 emulator, prints it as JSON, and has credentials checked from
# then on: two keys (one may only look), and three instances.
import json
import sys
import urllib.request

import boto3

url, region = sys.argv[1:]
anyone = dict(endpoint_url=url, region_name=region, aws_access_key_id="a", aws_secret_access_key="b")
iam, ec2 = boto3.client("iam", **anyone), boto3.client("ec2", **anyone)


def key(user, actions):
    iam.create_user(UserName=user)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=policy)
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return [made["AccessKeyId"], made["SecretAccessKey"]]


image = ec2.describe_images()["Images"][0]["ImageId"]
tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web <1> & more"}]}]
made = [
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)
    for _ in range(3)
]
ids = [one["Instances"][0]["InstanceId"] for one in made]
ec2.terminate_instances(InstanceIds=ids[2:])
power = ["ec2:DescribeInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:RebootInstances"]
out = {"ids": ids, "power": key("power", power), "looks": key("looks", power[:1])}
plain = {"Content-Type": "text/plain"}
urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", b"0", plain))
print(json.dumps(out))
